"""Find problems before a start costs ten minutes: each check is a pure function of facts, plan and measurements."""
