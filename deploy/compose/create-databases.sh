#!/bin/bash
# Run once by the postgres image, when its volume is empty: one database per service.
set -eu
# >>> from deploy/topology.py by `make render`: databases
for database in user order notification jobs report fraud wallet dead_letter; do
# <<<
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --command "CREATE DATABASE \"$database\""
done
