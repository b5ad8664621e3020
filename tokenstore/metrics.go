package tokenstore

import (
	"errors"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics measures the store. Its labels are closed sets: op is a method in lower case, result a row of resultOf.
type metrics struct {
	duration *prometheus.HistogramVec
}

// newMetrics registers the metrics; a nil Registerer measures for nobody.
func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{duration: promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "bifrost_store_operation_duration_seconds",
		Help:    "Duration of the token store's operations, by operation and result.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
	}, []string{"op", "result"})}
}

// newFileMetrics registers what only a File can tell.
func newFileMetrics(reg prometheus.Registerer, free func() (uint64, error)) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bifrost_store_free_bytes",
		Help: "Bytes free on the file system of the store file. Below 16 MiB nothing is refreshed.",
	}, func() float64 {
		n, err := free()
		if err != nil {
			return math.NaN() // not known is not zero
		}
		return float64(n)
	})
}

// observe is deferred with the address of the method's result.
func (m *metrics) observe(op string, start time.Time, err *error) {
	m.duration.WithLabelValues(op, resultOf(*err)).Observe(time.Since(start).Seconds())
}

func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrConflict):
		return "conflict"
	case errors.Is(err, ErrHeld):
		return "held"
	case errors.Is(err, ErrUnreadable):
		return "unreadable"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	default:
		return "invalid"
	}
}

// redisMetrics are those of a Redis alone.
type redisMetrics struct {
	offset       prometheus.Gauge
	unreplicated prometheus.Counter
	problem      *prometheus.GaugeVec
}

func newRedisMetrics(reg prometheus.Registerer) *redisMetrics {
	with := promauto.With(reg)
	return &redisMetrics{
		offset: with.NewGauge(prometheus.GaugeOpts{
			Name: "bifrost_store_clock_offset_seconds",
			Help: "How far Redis's clock is ahead of this machine's, as measured when a lease was last taken.",
		}),
		unreplicated: with.NewCounter(prometheus.CounterOpts{
			Name: "bifrost_store_unreplicated_writes_total",
			Help: "Writes that fewer replicas acknowledged in time than store.redis.wait_replicas wants.",
		}),
		problem: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bifrost_store_problem",
			Help: "1: Redis answers, but this endangers the connections that it keeps.",
		}, []string{"problem"}),
	}
}
