"""Starting and stopping the whole, natively or with compose."""
