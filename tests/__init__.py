"""The tests: `unit` (pure), `lab` (real SSH hosts in namespaces), `e2e` (real Ray and vLLM), `parity` (Ansible)."""
