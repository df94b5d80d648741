package policy_test

import (
	"fmt"
	"testing"

	"sallyport/internal/policy"
)

// manyPerimeters returns n perimeters of the namespace of manyPolicies, each with its own types and functions, exact and
// as beginnings, and ten bridges of which one is that of asked; with conditions, every bridge has one.
func manyPerimeters(n int, when string) policy.PerimeterFile {
	f := policy.PerimeterFile{
		Name: "perimeters.toml", Namespace: "shop",
		Levels: []policy.Level{{Name: "net", IP: []string{"10.0.0.0/8", "192.0.2.0/24"}}},
	}
	for i := range n {
		p := policy.Perimeter{
			Name: fmt.Sprintf("p%d", i), EventTypes: []string{fmt.Sprintf("order.%d", i), fmt.Sprintf("area-%d.*", i)},
			Functions: []string{fmt.Sprintf("f-%d", i)}, Require: []string{"net"},
		}
		for j := range 10 {
			from := fmt.Sprintf("service:other-%d", j)
			if j == 9 {
				from = "service:svc-*"
			}
			p.Bridges = append(p.Bridges, policy.Bridge{
				Name: fmt.Sprintf("b%d", j), From: []string{from}, To: []string{fmt.Sprintf("event_type:order.%d", i)}, Actions: []policy.Action{policy.Publish}, When: when,
			})
		}
		f.Perimeters = append(f.Perimeters, p)
	}
	return f
}

// perimeterCases are no perimeters; 50 whose borders the request of asked does not cross; and 50 of which it crosses one
// by a bridge, without and with a condition.
func perimeterCases(b *testing.B, policies int) map[string]*policy.Set {
	b.Helper()
	beside := manyPerimeters(51, "")
	beside.Perimeters = append(beside.Perimeters[:5:5], beside.Perimeters[6:]...)
	sets := map[string]*policy.Set{}
	for name, files := range map[string][]policy.PerimeterFile{
		"none": nil, "beside": {beside}, "bridge": {manyPerimeters(50, "")}, "condition": {manyPerimeters(50, "context.event.size < 1000")},
	} {
		s, err := policy.NewWith(policy.Config{Files: manyPolicies(policies), Perimeters: files})
		if err != nil {
			b.Fatal(err)
		}
		sets[name] = s
	}
	return sets
}

// BenchmarkPerimeters is a whole decision among 1000 policies.
func BenchmarkPerimeters(b *testing.B) {
	sets := perimeterCases(b, 1000)
	for _, name := range []string{"none", "beside", "bridge", "condition"} {
		b.Run(name, func(b *testing.B) {
			q := asked()
			q.Principal = q.Principal.Prepare()
			if !sets[name].Decide(q).Allowed {
				b.Fatal("denied")
			}
			b.ReportAllocs()
			for b.Loop() {
				sets[name].Decide(q)
			}
		})
	}
}

// BenchmarkToll is what perimeters add to a decision, and to a delivery.
func BenchmarkToll(b *testing.B) {
	sets := perimeterCases(b, 1)
	for _, name := range []string{"none", "beside", "bridge", "condition"} {
		b.Run(name, func(b *testing.B) {
			q := asked()
			toll := sets[name].Toll(&q)
			b.ReportAllocs()
			for b.Loop() {
				toll()
			}
		})
	}
	b.Run("deliver", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sets["bridge"].CanDeliver("shop", "order.5", "f-5")
		}
	})
}
