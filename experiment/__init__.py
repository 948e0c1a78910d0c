"""What compare, faults and bench have in common: servers, load, the ledger of what was asked, the check."""
