"""What every folder may use: quoting, deadlines, paths, file modes, YAML, units, spelling suggestions."""
