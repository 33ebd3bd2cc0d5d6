"""What Prometheus and Grafana are given: alert rules and a dashboard, made from the gateway's own table of metrics."""
