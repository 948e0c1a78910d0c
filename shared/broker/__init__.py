"""The seam between services and brokers: `base` is the contract, `rabbit` and `kafka` are its adapters."""
