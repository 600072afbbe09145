"""An optional app: an address book with groups, for sites without a table of clients."""
