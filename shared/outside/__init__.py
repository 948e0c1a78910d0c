"""What lies outside the system: mail, alerts, and the circuit breaker round them."""

__all__ = ["alerts", "circuit_breaker", "mail", "mail_headers"]
