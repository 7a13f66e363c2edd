"""Read inventory files of three forms into one `Inventory`; contact nothing."""
