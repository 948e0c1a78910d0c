"""What the report service does: keeps orders, makes reports of them, and tells how far each is."""

from services.report.handlers import reports
from services.report.handlers.daily import schedules
from services.report.handlers.orders import SUBSCRIBERS
from services.report.handlers.steps import JOBS

__all__ = ["JOBS", "SUBSCRIBERS", "reports", "schedules"]
