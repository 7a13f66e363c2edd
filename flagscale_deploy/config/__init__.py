"""Read serve configurations of every dialect into one `ServeSpec`; contact nothing."""
