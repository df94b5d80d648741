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

// BenchmarkPerimeters is one decision among 1000 policies without perimeters; with 50 whose borders it does not cross;
// and by a bridge of one, without and with a condition. "alone" is what perimeters add to it.
func BenchmarkPerimeters(b *testing.B) {
	beside := manyPerimeters(51, "")
	beside.Perimeters = append(beside.Perimeters[:5:5], beside.Perimeters[6:]...)
	for _, bc := range []struct {
		name  string
		files []policy.PerimeterFile
	}{
		{"none", nil},
		{"beside", []policy.PerimeterFile{beside}},
		{"bridge", []policy.PerimeterFile{manyPerimeters(50, "")}},
		{"condition", []policy.PerimeterFile{manyPerimeters(50, "context.event.size < 1000")}},
	} {
		s, err := policy.NewWith(policy.Config{Files: manyPolicies(1000), Perimeters: bc.files})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bc.name, func(b *testing.B) {
			q := asked()
			q.Principal = q.Principal.Prepare()
			if !s.Decide(q).Allowed {
				b.Fatal("denied")
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Decide(q)
			}
		})
		b.Run(bc.name+"/alone", func(b *testing.B) {
			q := asked()
			toll := s.Toll(&q)
			b.ReportAllocs()
			for b.Loop() {
				toll()
			}
		})
	}
	s, err := policy.NewWith(policy.Config{Perimeters: []policy.PerimeterFile{manyPerimeters(50, "")}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("deliver", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.CanDeliver("shop", "order.5", "f-5")
		}
	})
}
