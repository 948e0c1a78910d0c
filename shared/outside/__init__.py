"""What lies outside the system: mail, alerts, objects, documents of others, and the circuit breaker round them."""

__all__ = ["alerts", "circuit_breaker", "conditional_get", "mail", "mail_headers", "objects"]
