"""Show results to people and CI: tables and lines through a `Console`, JSON and JUnit files. One file per command."""
