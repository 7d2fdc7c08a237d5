#!/bin/sh
# Prints running, success or failed for one job. usage: status.sh NUMBER
# A scheduler that does not answer is no verdict: then a job counts as running and is asked for again. One that is not
# known any more counts as failed.
job=$1

if command -v qstat > /dev/null; then
    answer=$(LC_ALL=C qstat -x -f "$job" 2>&1)
    case $answer in
        *"job_state = "[FC]*"xit_status = 0"*) echo success ;;
        *"xit_status = 0"*"job_state = "[FC]*) echo success ;;
        *"job_state = "[FC]*) echo failed ;;
        *"Unknown Job"*) echo failed ;;
        *) echo running ;;
    esac
elif command -v bjobs > /dev/null; then
    answer=$(LC_ALL=C bjobs -a -noheader -o stat "$job" 2>&1)
    case $answer in
        DONE*) echo success ;;
        EXIT*) echo failed ;;
        *"is not found"*) echo failed ;;
        *) echo running ;;
    esac
else
    answer=$(LC_ALL=C scontrol --oneliner show job "$job" 2>&1)
    case $answer in
        *JobState=COMPLETED*) echo success ;;
        *JobState=PENDING* | *JobState=RUNNING* | *JobState=CONFIGURING* | *JobState=COMPLETING*) echo running ;;
        *JobState=SUSPENDED* | *JobState=REQUEUED* | *JobState=STOPPED* | *JobState=RESIZING*) echo running ;;
        *JobState=*) echo failed ;;
        *"Invalid job id"*) echo failed ;;
        *) echo running ;;
    esac
fi
