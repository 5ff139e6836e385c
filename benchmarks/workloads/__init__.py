"""What is measured, on what data, against whom."""
