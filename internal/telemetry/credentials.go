package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics of what the credentials of callers are checked with. Times are those of Unix, so that an alert is "time() - x".
const (
	nameIssuerKeys       = "sallyport_issuer_keys"
	nameIssuerRefreshed  = "sallyport_issuer_refreshed_timestamp_seconds"
	nameIssuerFailures   = "sallyport_issuer_refresh_failures_total"
	nameRevoked          = "sallyport_revocation_entries"
	nameRevokedIssued    = "sallyport_revocation_issued_timestamp_seconds"
	nameRevokedUntil     = "sallyport_revocation_next_update_timestamp_seconds"
	nameRevokedUnread    = "sallyport_revocation_read_failures_total"
	labelIssuer, labelCA = "issuer", "ca"
)

// Credentials is how fresh is what the credentials of callers are checked with.
type Credentials struct{ Issuers, Revocations []CredentialSource }

// CredentialSource is an issuer with its keys, or a CA with its revocation lists. Names are a bounded set: they are configured.
type CredentialSource struct {
	Name  string
	Count int
	// Since is when it was fetched or issued, and Until when it ends; a time that is zero is not shown.
	Since, Until time.Time
	Failures     int64
}

// Checked has read called whenever the metrics are asked for. Call it once.
func (m *Metrics) Checked(read func() Credentials) {
	desc := func(name, help, label string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{label}, nil)
	}
	m.registry.MustRegister(&credentialSampler{read: read,
		keys:      desc(nameIssuerKeys, "Keys that an issuer published when they were fetched last.", labelIssuer),
		refreshed: desc(nameIssuerRefreshed, "When the keys of an issuer were fetched last.", labelIssuer),
		failures:  desc(nameIssuerFailures, "Fetches of the keys of an issuer that failed.", labelIssuer),
		revoked:   desc(nameRevoked, "Certificates that the revocation lists of a CA of callers name.", labelCA),
		issued:    desc(nameRevokedIssued, "When the oldest revocation list of a CA of callers was issued.", labelCA),
		until:     desc(nameRevokedUntil, "Until when the revocation lists of a CA of callers hold: then none of its certificates is accepted any more.", labelCA),
		unread:    desc(nameRevokedUnread, "Times that the revocation lists of a CA of callers could not be read.", labelCA),
	})
}

type credentialSampler struct {
	read                                                      func() Credentials
	keys, refreshed, failures, revoked, issued, until, unread *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (s *credentialSampler) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.keys, s.refreshed, s.failures, s.revoked, s.issued, s.until, s.unread} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (s *credentialSampler) Collect(c chan<- prometheus.Metric) {
	v := s.read()
	show := func(d *prometheus.Desc, value float64, name string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, name)
	}
	at := func(d *prometheus.Desc, t time.Time, name string) {
		if !t.IsZero() {
			show(d, float64(t.Unix()), name)
		}
	}
	for _, is := range v.Issuers {
		show(s.keys, float64(is.Count), is.Name)
		at(s.refreshed, is.Since, is.Name)
		c <- prometheus.MustNewConstMetric(s.failures, prometheus.CounterValue, float64(is.Failures), is.Name)
	}
	for _, l := range v.Revocations {
		show(s.revoked, float64(l.Count), l.Name)
		at(s.issued, l.Since, l.Name)
		at(s.until, l.Until, l.Name)
		c <- prometheus.MustNewConstMetric(s.unread, prometheus.CounterValue, float64(l.Failures), l.Name)
	}
}
