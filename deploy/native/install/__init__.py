"""What must be on the machine before servers can run natively."""
