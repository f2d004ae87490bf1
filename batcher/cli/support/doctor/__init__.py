"""What `doctor` looks at: each module has checks that return findings and change nothing."""
