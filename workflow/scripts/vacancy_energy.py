from defraction.job import job

with job(snakemake) as run:
    from defraction.first_principles.formation import vacancy_file

    vacancy_file(run.input.defect, run.input.perfect, run.output.json)
