#!/bin/sh
# Submits one job and prints its number. usage: submit.sh CORES MEMORY_MB MINUTES GPUS NAME SCRIPT
set -eu
options=""  # EDIT: what every job needs at your site, such as -q QUEUE -A ACCOUNT

cores=$1 memory=$2 minutes=$3 gpus=$4 name=$(printf %.15s "$5") script=$6
logs=logs/cluster
mkdir -p $logs

if command -v qsub > /dev/null; then  # OpenPBS, PBS Professional
    chunk=select=1:ncpus=$cores:mem=${memory}mb
    [ "$gpus" = 0 ] || chunk=$chunk:ngpus=$gpus
    time=$(printf %02d:%02d:00 $((minutes / 60)) $((minutes % 60)))
    qsub $options -N "$name" -l "$chunk" -l walltime="$time" -j oe -o $logs/ "$script"
elif command -v bsub > /dev/null; then  # LSF, with memory in MB for all slots together
    [ "$gpus" = 0 ] || options="$options -gpu num=$gpus"
    bsub $options -J "$name" -n "$cores" -R "span[hosts=1]" -R "rusage[mem=$memory]" -W "$minutes" \
        -o "$logs/%J.log" "$script" | sed -n 's/^Job <\([0-9]*\)>.*/\1/p'
elif command -v sbatch > /dev/null; then  # Slurm, for who cannot use profiles/slurm
    [ "$gpus" = 0 ] || options="$options --gpus=$gpus"
    sbatch --parsable $options --job-name="$name" --cpus-per-task="$cores" --mem="$memory" --time="$minutes" \
        --output="$logs/%j.log" "$script" | cut -d ";" -f 1
else
    echo "submit.sh: found none of qsub, bsub, sbatch; add your scheduler's command here, in status.sh and in cancel.sh" >&2
    exit 1
fi
