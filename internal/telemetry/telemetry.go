// Package telemetry holds the server's logger and its metrics: the names, the registry and the
// handler. It knows nothing of events, tokens or keys, and none of them may become a label.
//
// Callers: server (New, Logger), and everyone through plain functions that server passes on.
package telemetry

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Names of the metrics. Durations are seconds, sizes bytes.
const (
	nameAccepted   = "sallyport_events_accepted_total"
	nameRefused    = "sallyport_requests_refused_total"
	nameCommit     = "sallyport_commit_seconds"
	nameBatch      = "sallyport_commit_events"
	nameBatchBytes = "sallyport_commit_bytes_total"
	nameAttempts   = "sallyport_attempts_total"
	nameCanaries   = "sallyport_canary_touched_total"
	nameAttempt    = "sallyport_attempt_seconds"
	nameInvoked    = "sallyport_invocations_total"
	nameInvocation = "sallyport_invocation_seconds"
	nameGrantUses  = "sallyport_grant_uses_total"
	nameGrantUse   = "sallyport_grant_use_seconds"
	nameEvents     = "sallyport_events"
	nameQuota      = "sallyport_namespace_quota"
	nameUse        = "sallyport_namespace_use"
	nameDiskFree   = "sallyport_disk_free_bytes"
	nameWorkers    = "sallyport_workers_lost_total"
	nameReady      = "sallyport_ready"
	nameBuild      = "sallyport_build_info"
)

// Metrics are the server's metrics. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	accepted *prometheus.CounterVec
	refused  *prometheus.CounterVec
	commit   *prometheus.HistogramVec
	batch    *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	attempts *prometheus.CounterVec
	canaries *prometheus.CounterVec
	attempt  prometheus.Histogram
	invoked  *prometheus.CounterVec
	took     *prometheus.HistogramVec
	uses     *prometheus.CounterVec
	useTook  *prometheus.HistogramVec
}

// NewMetrics returns the metrics of a server of this version.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: nameAccepted, Help: "Events accepted, repetitions not counted."}, []string{"namespace"}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: nameRefused, Help: "HTTP requests that were refused or failed, by problem code."}, []string{"code"}),
		commit: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: nameCommit, Help: "Time of a group commit, fsync included.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}, []string{"namespace"}),
		batch: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: nameBatch, Help: "Events of a group commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}, []string{"namespace"}),
		bytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: nameBatchBytes, Help: "Sealed bytes committed."}, []string{"namespace"}),
		canaries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: nameCanaries, Help: "Uses of canary secrets: each is a finding."}, []string{"namespace"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: nameAttempts, Help: "Attempts at deliveries, by outcome."}, []string{"namespace", "outcome"}),
		attempt: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: nameAttempt, Help: "Time of an attempt.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	m.invoked = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: nameInvoked, Help: "Invocations of functions, by outcome, and by whether an instance was made for it (cold) or waited (warm).",
	}, []string{"namespace", "function", "outcome", "start"})
	m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: nameInvocation, Help: "Time of an invocation of a function.", Buckets: prometheus.ExponentialBuckets(0.0000625, 4, 10),
	}, []string{"namespace", "function"})
	m.uses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: nameGrantUses, Help: "Uses of grants by functions, by kind of grant and by the code of the problem, which is empty for those that were served.",
	}, []string{"namespace", "kind", "code"})
	m.useTook = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: nameGrantUse, Help: "Time of the use of a grant.", Buckets: prometheus.ExponentialBuckets(0.0000625, 4, 10),
	}, []string{"namespace", "kind"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: nameBuild, Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.accepted, m.refused, m.commit, m.batch, m.bytes, m.canaries, m.attempts, m.attempt, m.invoked, m.took, m.uses, m.useTook, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Committed returns what is to be told of each group commit of a namespace.
func (m *Metrics) Committed(ns string) func(events, bytes int, took time.Duration) {
	accepted, commit := m.accepted.WithLabelValues(ns), m.commit.WithLabelValues(ns)
	batch, size := m.batch.WithLabelValues(ns), m.bytes.WithLabelValues(ns)
	return func(events, bytes int, took time.Duration) {
		accepted.Add(float64(events))
		batch.Observe(float64(events))
		size.Add(float64(bytes))
		commit.Observe(took.Seconds())
	}
}

// CanaryTouched counts a use of a canary secret.
func (m *Metrics) CanaryTouched(ns string) { m.canaries.WithLabelValues(ns).Inc() }

// Attempted returns what is to be told of each attempt in a namespace.
func (m *Metrics) Attempted(ns string) func(outcome string, took time.Duration) {
	counters := map[string]prometheus.Counter{}
	for _, outcome := range []string{"done", "retry", "dead"} {
		counters[outcome] = m.attempts.WithLabelValues(ns, outcome)
	}
	other := m.attempts.WithLabelValues(ns, "other")
	return func(outcome string, took time.Duration) {
		counter := counters[outcome]
		if counter == nil {
			counter = other // a count must not take a delivery down
		}
		counter.Inc()
		m.attempt.Observe(took.Seconds())
	}
}

// Invoked returns what is to be told of each invocation in a namespace. Functions are a bounded set: they
// are deployed.
func (m *Metrics) Invoked(ns string) func(function, outcome string, cold bool, took time.Duration) {
	type sort struct {
		function, outcome string
		cold              bool
	}
	type series struct {
		invoked prometheus.Counter
		took    prometheus.Observer
	}
	var mu sync.Mutex
	known := map[sort]series{} // to look one up by its labels takes as long as all else here
	return func(function, outcome string, cold bool, took time.Duration) {
		of := sort{function, outcome, cold}
		mu.Lock()
		s, ok := known[of]
		if !ok {
			start := "warm"
			if cold {
				start = "cold"
			}
			s = series{m.invoked.WithLabelValues(ns, function, outcome, start), m.took.WithLabelValues(ns, function)}
			known[of] = s
		}
		mu.Unlock()
		s.invoked.Inc()
		s.took.Observe(took.Seconds())
	}
}

// GrantUsed counts a use of a grant. Kinds and codes are closed sets.
func (m *Metrics) GrantUsed(ns, kind, code string, took time.Duration) {
	m.uses.WithLabelValues(ns, kind, code).Inc()
	m.useTook.WithLabelValues(ns, kind).Observe(took.Seconds())
}

// Refused counts a request that ended in a problem. Codes are a closed set.
func (m *Metrics) Refused(code string) { m.refused.WithLabelValues(code).Inc() }

// Sample is what is read when the metrics are asked for.
type Sample struct {
	Ready    bool
	DiskFree int64
	// LostWorkers counts the worker processes that ended by a fault.
	LostWorkers int64
	Events      []NamespaceSample
}

// NamespaceSample counts the events of a namespace.
type NamespaceSample struct {
	Namespace           string
	Done, Dead, Pending int64
	// Quotas and Use are by the name of the quota.
	Quotas, Use map[string]int64
}

// Forget ends the series of a namespace that is gone.
func (m *Metrics) Forget(ns string) {
	of := prometheus.Labels{"namespace": ns}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.accepted, m.commit, m.batch, m.bytes, m.attempts, m.invoked, m.took, m.uses, m.useTook} {
		v.DeletePartialMatch(of)
	}
}

// Sampled has read called whenever the metrics are asked for. Call it once.
func (m *Metrics) Sampled(read func() Sample) {
	m.registry.MustRegister(&sampler{read: read,
		events:   prometheus.NewDesc(nameEvents, "Accepted events by state; their sum is all that were accepted.", []string{"namespace", "state"}, nil),
		quota:    prometheus.NewDesc(nameQuota, "Quotas of namespaces.", []string{"namespace", "quota"}, nil),
		use:      prometheus.NewDesc(nameUse, "What namespaces use of what can have a quota.", []string{"namespace", "quota"}, nil),
		diskFree: prometheus.NewDesc(nameDiskFree, "Free space of the data directory's file system.", nil, nil),
		workers:  prometheus.NewDesc(nameWorkers, "Worker processes of functions that ended by a fault.", nil, nil),
		ready:    prometheus.NewDesc(nameReady, "1 when the server accepts events.", nil, nil),
	})
}

type sampler struct {
	read                                         func() Sample
	events, quota, use, diskFree, workers, ready *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (s *sampler) Describe(c chan<- *prometheus.Desc) {
	c <- s.events
	c <- s.quota
	c <- s.use
	c <- s.diskFree
	c <- s.workers
	c <- s.ready
}

// Collect implements prometheus.Collector.
func (s *sampler) Collect(c chan<- prometheus.Metric) {
	v := s.read()
	ready := 0.0
	if v.Ready {
		ready = 1
	}
	c <- prometheus.MustNewConstMetric(s.ready, prometheus.GaugeValue, ready)
	c <- prometheus.MustNewConstMetric(s.diskFree, prometheus.GaugeValue, float64(v.DiskFree))
	c <- prometheus.MustNewConstMetric(s.workers, prometheus.CounterValue, float64(v.LostWorkers))
	for _, n := range v.Events {
		for state, count := range map[string]int64{"done": n.Done, "dead": n.Dead, "pending": n.Pending} {
			c <- prometheus.MustNewConstMetric(s.events, prometheus.GaugeValue, float64(count), n.Namespace, state)
		}
		for name, value := range n.Quotas {
			c <- prometheus.MustNewConstMetric(s.quota, prometheus.GaugeValue, float64(value), n.Namespace, name)
		}
		for name, value := range n.Use {
			c <- prometheus.MustNewConstMetric(s.use, prometheus.GaugeValue, float64(value), n.Namespace, name)
		}
	}
}

// Handler returns the handler that answers with all metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
}
