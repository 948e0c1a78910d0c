"""From a batch of deliveries to recorded effects: claims, inbox, attempts, transaction, settlement."""
