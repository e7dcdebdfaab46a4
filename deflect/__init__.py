"""deflect: discriminative geospatial encoders as feature banks. Of satdifuser it uses bank.py alone."""
