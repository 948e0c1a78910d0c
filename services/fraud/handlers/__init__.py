"""What the fraud service does: judges orders, catches up on those of the day before, and fetches a list."""

from services.fraud.handlers import evaluations
from services.fraud.handlers.judging import SUBSCRIBERS, order_subscriber
from services.fraud.handlers.schedules import JOBS, schedules

__all__ = ["JOBS", "SUBSCRIBERS", "evaluations", "order_subscriber", "schedules"]
