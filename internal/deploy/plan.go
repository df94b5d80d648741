package deploy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
)

// The kinds of changes that consent is asked about with what they are of.
const (
	kindFunction     = "function"
	kindSubscription = "subscription"
)

// diff returns what next changes: functions, then event types, then subscriptions, each by name.
func diff(old, next *app) []api.Change {
	if old == nil {
		old = &app{}
	}
	var out []api.Change
	out = append(out, changes(kindFunction, old.functions, next.functions, functionDetail)...)
	out = append(out, changes("event type", old.eventTypes, next.eventTypes, eventTypeDetail)...)
	return append(out, changes(kindSubscription, old.subscriptions, next.subscriptions, subscriptionDetail)...)
}

// changes compares two sets by name; detail returns what differs between two of one name, or "".
func changes[N ~string, T any](kind string, old, next map[N]*T, detail func(a, b *T) string) []api.Change {
	var out []api.Change
	for name, b := range next {
		a := old[name]
		if a == nil {
			out = append(out, api.Change{Action: api.ActionCreate, Kind: kind, Name: string(name)})
		} else if d := detail(a, b); d != "" {
			out = append(out, api.Change{Action: api.ActionUpdate, Kind: kind, Name: string(name), Detail: d})
		}
	}
	for name := range old {
		if next[name] == nil {
			out = append(out, api.Change{Action: api.ActionDelete, Kind: kind, Name: string(name)})
		}
	}
	slices.SortFunc(out, func(a, b api.Change) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// differences gathers what differs, in words.
type differences []string

func (d *differences) add(what string, a, b any) {
	if a != b {
		*d = append(*d, fmt.Sprintf("%s %v -> %v", what, a, b))
	}
}

func (d *differences) String() string { return strings.Join(*d, ", ") }

func functionDetail(a, b *Function) string {
	var d differences
	if a.Digest != b.Digest {
		d = append(d, "code")
	}
	d.add("memory", manifest.FormatSize(a.Limits.Memory), manifest.FormatSize(b.Limits.Memory))
	d.add("timeout", a.Limits.Timeout, b.Limits.Timeout)
	d.add("min_instances", a.Limits.MinInstances, b.Limits.MinInstances)
	d.add("limits.cpu", a.Limits.CPU, b.Limits.CPU)
	d.add("limits.output", manifest.FormatSize(int64(a.Limits.Output)), manifest.FormatSize(int64(b.Limits.Output)))
	d.add("limits.log", manifest.FormatSize(int64(a.Limits.LogBytes)), manifest.FormatSize(int64(b.Limits.LogBytes)))
	d.add("limits.events", a.Limits.Events, b.Limits.Events)
	d.add("limits.host_calls", a.Limits.HostCalls, b.Limits.HostCalls)
	for _, c := range functionPermissions(a.Name, a, b) {
		d = append(d, "grant "+c.Grant+" "+c.Change)
	}
	return d.String()
}

func eventTypeDetail(a, b *EventType) string {
	switch {
	case (a.Schema == nil) != (b.Schema == nil) && b.Schema == nil:
		return "schema removed"
	case (a.Schema == nil) != (b.Schema == nil):
		return "schema added"
	case a.text != b.text:
		return "schema"
	}
	return ""
}

func subscriptionDetail(a, b *Subscription) string {
	var d differences
	name := func(s *Subscription) ident.FunctionName { return s.Function.Name }
	d.add("function", name(a), name(b))
	d.add("type", a.Filter.Type.String(), b.Filter.Type.String())
	d.add("source", a.Filter.Source.String(), b.Filter.Source.String())
	d.add("subject", a.Filter.Subject.String(), b.Filter.Subject.String())
	if a.WhenText != b.WhenText {
		d = append(d, "when")
	}
	d.add("attempts", a.Retry.Attempts, b.Retry.Attempts)
	d.add("backoff", a.Retry.Backoff, b.Retry.Backoff)
	d.add("max_backoff", a.Retry.MaxBackoff, b.Retry.MaxBackoff)
	d.add("max_age", a.Retry.MaxAge, b.Retry.MaxAge)
	return d.String()
}
