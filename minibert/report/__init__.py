"""report.html: a finished run's figures as one page, for people who would rather look than read."""
