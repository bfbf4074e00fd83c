"""Record folders: assemble them from reports, verify anyone's from its logs."""
