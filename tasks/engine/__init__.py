"""The one shared floor: the run, its steps and their record, the frame around every body."""
