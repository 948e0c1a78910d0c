"""The rig that the comparison, the faults and the benchmarks stand on: servers, load, ledger, checker."""
