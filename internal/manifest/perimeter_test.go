package manifest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

const paymentsFile = `
[levels.office]
ip       = ["192.0.2.0/24", "2001:db8::1"]
hours    = ["mon-fri 07:00-19:00", "sat 10:00-12:00"]
mtls     = true
strength = ["phr"]
methods  = ["hwk"]

[perimeters.payments]
description = "what handles cards"
mode        = "dry-run"
event_types = ["payment.*", "card.charged"]
functions   = ["charge"]
require     = ["office"]

[perimeters.payments.bridges.settled]
from    = ["function:charge"]
to      = ["event_type:order.paid"]
actions = ["publish"]
when    = "context.event.size < 1000"

[perimeters.payments.bridges.ship]
from    = ["event_type:payment.settled"]
to      = ["function:ship"]
actions = ["deliver"]

[perimeters.small]
functions = ["f"]
`

func TestParsePerimeters(t *testing.T) {
	t.Parallel()
	got, err := manifest.ParsePerimeters("payments.toml", []byte(paymentsFile), "shop")
	if err != nil {
		t.Fatalf("%v %+v", err, problem.From(err).Faults)
	}
	want := policy.PerimeterFile{
		Name: "payments.toml", Namespace: "shop",
		Levels: []policy.Level{{
			Name: "office", IP: []string{"192.0.2.0/24", "2001:db8::1"}, MutualTLS: true,
			Hours: []string{"mon-fri 07:00-19:00", "sat 10:00-12:00"}, Strength: []string{"phr"}, Methods: []string{"hwk"},
		}},
		Perimeters: []policy.Perimeter{
			{
				Name: "payments", Description: "what handles cards", Mode: policy.DryRun, EventTypes: []string{"payment.*", "card.charged"},
				Functions: []string{"charge"}, Require: []string{"office"}, File: "payments.toml", Line: 9,
				Bridges: []policy.Bridge{
					{
						Name: "settled", From: []string{"function:charge"}, To: []string{"event_type:order.paid"},
						Actions: []policy.Action{policy.Publish}, When: "context.event.size < 1000",
					},
					{Name: "ship", From: []string{"event_type:payment.settled"}, To: []string{"function:ship"}, Actions: []policy.Action{policy.Deliver}},
				},
			},
			{Name: "small", Functions: []string{"f"}, File: "payments.toml", Line: 27},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParsePerimeters (-want +got):\n%s", diff)
	}
	s, err := policy.NewWith(policy.Config{Perimeters: []policy.PerimeterFile{got}})
	if err != nil {
		t.Fatal(err)
	}
	if d := s.CanDeliver("shop", "payment.made", "ship"); !d.Allowed || len(d.DryRun) != 1 {
		t.Errorf("CanDeliver = %+v, want a note of the perimeter in dry-run", d)
	}
}

// The same text means other things in a perimeter of the server, where names have a namespace.
func TestParsePerimetersOfServer(t *testing.T) {
	t.Parallel()
	if _, err := manifest.ParsePerimeters("payments.toml", []byte(paymentsFile), ""); err == nil {
		t.Error("names without a namespace are in a perimeter of the server")
	}
	text := strings.NewReplacer(`"payment.*"`, `"shop/payment.*"`, `"card.charged"`, `"b/card.charged"`, `["charge"]`, `["shop/charge"]`, `["f"]`, `["b/f"]`,
		"function:", "function:shop/", "event_type:", "event_type:shop/").Replace(paymentsFile)
	if _, err := manifest.ParsePerimeters("payments.toml", []byte(text), ""); err != nil {
		t.Errorf("%v %+v", err, problem.From(err).Faults)
	}
}

// Faults beyond those that are shown are counted or left out, and the text is bounded before it is parsed.
func TestParsePerimetersIsBounded(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"bytes":   strings.Repeat("#", manifest.MaxBytes+1),
		"members": "[perimeters.p]\nevent_types = [" + strings.Repeat(`"x",`, policy.MaxMembers+1) + "]",
		"faults":  "[perimeters.p]\nevent_types = [" + strings.Repeat(`"x y",`, policy.MaxMembers) + "]",
	} {
		_, err := manifest.ParsePerimeters("p.toml", []byte(text), "shop")
		if err == nil || len(problem.From(err).Faults) == 0 || len(problem.From(err).Faults) > 50 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePerimeters(f *testing.F) {
	f.Add([]byte(paymentsFile))
	seed(f, "perimeter")
	f.Fuzz(func(t *testing.T, text []byte) {
		err := parsePerimeters(text)
		checkFaults(t, text, err)
		if err != nil {
			return
		}
		// What is taken here, a set takes too.
		ns := ident.Namespace("shop")
		if strings.HasPrefix(string(text), "# server") {
			ns = ""
		}
		file, err := manifest.ParsePerimeters("p.toml", text, ns)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policy.NewWith(policy.Config{Perimeters: []policy.PerimeterFile{file}}); err != nil {
			t.Fatalf("%v %+v", err, problem.From(err).Faults)
		}
	})
}
