package policy_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/policy"
)

// manyPolicies returns n policies of a namespace as they are when many teams write them: most name a principal or
// group and a resource, some name an action and a type only, and some are forbids with conditions on the context.
func manyPolicies(n int) []policy.File {
	actions := []policy.Action{policy.Publish, policy.Invoke, policy.ReadEvents, policy.Deploy, policy.ReadLogs}
	var files []policy.File
	var b bytes.Buffer
	for i := range n {
		switch action := actions[i%len(actions)]; {
		case i%50 == 49:
			fmt.Fprintf(&b, "@id(\"p%d\") forbid (principal is Service, action == Action::%q, resource)\n"+
				"when { context has ip && context.ip.isInRange(ip(\"10.%d.0.0/16\")) };\n", i, action, i%256)
		case action == policy.Publish:
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal in Group::\"team-%d\", action == Action::\"publish\", resource == EventType::\"shop/order.%d\")\n"+
				"when { context.event.size < %d };\n", i, i%97, i, 1000+i)
		case action == policy.Invoke:
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal == Service::\"svc-%d\", action == Action::\"invoke\", resource == Function::\"shop/f-%d\");\n", i, i%331, i)
		default:
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal == User::\"u-%d\", action == Action::%q, resource == Namespace::\"shop\")\n"+
				"when { principal has claims && principal.claims.roles.contains(\"r%d\") };\n", i, i, action, i)
		}
		if b.Len() > policy.MaxFileBytes-1000 || i == n-1 {
			files = append(files, policy.File{Name: fmt.Sprintf("%d.cedar", len(files)), Namespace: "shop", Text: bytes.Clone(b.Bytes())})
			b.Reset()
		}
	}
	return files
}

// asked is a request that policies of manyPolicies are about.
func asked() policy.Request {
	groups := []string{"team-5", "team-6", "staff"}
	return policy.Request{
		Principal: policy.Principal{Kind: policy.KindService, ID: "service:svc-5", Groups: groups},
		Action:    policy.Publish, Resource: policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: "order.5"},
		Context: policy.Context{
			Transport: policy.TransportTLS, IP: ip("192.0.2.1"), Now: noon,
			Event: &policy.Event{Type: "order.5", Source: "/till", Size: 300},
		},
	}
}

// processor returns the processor time of the thread; reading it is a part of what is measured, some 0.3 µs.
func processor(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func benchmarkDecide(b *testing.B, n int) {
	s, err := policy.New(manyPolicies(n)...)
	if err != nil {
		b.Fatal(err)
	}
	q := asked()
	q.Principal = q.Principal.Prepare()
	if !s.Decide(q).Allowed {
		b.Fatal("denied")
	}
	b.ReportAllocs()
	// In processor time of this thread: what others do on the machine is not what a decision costs.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took []time.Duration
	for b.Loop() {
		start := processor(b)
		s.Decide(q)
		took = append(took, processor(b)-start)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-cpu-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-cpu-ns")
	b.ReportMetric(float64(s.InScope(q)), "in-scope")
}

func BenchmarkDecide1000(b *testing.B)  { benchmarkDecide(b, 1000) }
func BenchmarkDecide10000(b *testing.B) { benchmarkDecide(b, 10_000) }

// BenchmarkPlain1000 is the same question to Cedar without the index.
func BenchmarkPlain1000(b *testing.B) {
	s, err := policy.New(manyPolicies(1000)...)
	if err != nil {
		b.Fatal(err)
	}
	q := asked()
	b.ReportAllocs()
	for b.Loop() {
		s.Plain(q)
	}
}

func BenchmarkNew10000(b *testing.B) {
	files := manyPolicies(10_000)
	for b.Loop() {
		if _, err := policy.New(files...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewBuiltIn(b *testing.B) {
	for b.Loop() {
		if _, err := policy.New(); err != nil {
			b.Fatal(err)
		}
	}
}
