"""The comparison: the same services under the same load on RabbitMQ and on Kafka, measured and checked.

python -m compare --workload compare/workloads/default.yml --rounds 2 --out reports/latest
"""

__all__: list[str] = []
