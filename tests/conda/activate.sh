# Sourced by Snakemake before a job: source PREFIX/bin/activate ENVIRONMENT
export CONDA_PREFIX="$1" CONDA_DEFAULT_ENV="$1" CONDA_SHLVL=1
export PATH="$1/bin:$PATH"
unset VIRTUAL_ENV PYTHONHOME
for script in "$1"/etc/conda/activate.d/*.sh; do
    if [ -r "$script" ]; then . "$script"; fi
done
