package schema

import (
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// maxWork bounds one validation, in evaluations of a subschema at a value: about half a second. A
// schema whose alternatives each lead back to it makes them double with every level of the data, so
// a few hundred bytes from outside could otherwise hold a core for good.
const maxWork = 1 << 20

// errSelf is the fault of a schema that would never end.
var errSelf = errors.New("it refers to itself without going on to a part of the data ($ref in a circle)")

// weights is, by depth of the data, how many subschemas are evaluated at one value there, at most.
type weights [maxDepth + 1]int

// work returns at most how many evaluations data of this shape takes.
func (w *weights) work(s *shape) int {
	total := 0
	for d, units := range s.units {
		if units > 0 {
			total = min(maxWork+1, total+min(maxWork+1, units)*w[d])
		}
	}
	return total
}

// node is one subschema: how much it does at a value itself, and which subschemas it applies. Of the
// candidates of an edge only one is applied to a value, so the heaviest counts.
type node struct {
	own           int
	same          [][]int // to the same value
	object, array [][]int // to the parts of an object or an array
}

// graph has the subschemas that can be reached from one.
type graph struct {
	nodes []node
	index map[*jsonschema.Schema]int
	queue []*jsonschema.Schema
	// dynamic are the edges whose candidates are known at the end only: node, edge and anchor.
	dynamic []dynamicEdge
	anchors map[string][]int
}

type dynamicEdge struct {
	node, edge int
	anchor     string
}

// recursive stands for the anchor of $recursiveRef, which has no name.
const recursive = "\x00"

// weigh computes the weights of a schema.
func weigh(root *jsonschema.Schema) (*weights, error) {
	g := &graph{index: map[*jsonschema.Schema]int{}, anchors: map[string][]int{}}
	g.id(root)
	for n := 0; n < len(g.queue); n++ {
		g.add(n, g.queue[n])
	}
	for _, e := range g.dynamic {
		edge := &g.nodes[e.node].same[e.edge]
		*edge = append(*edge, g.anchors[e.anchor]...)
	}
	order, err := g.order()
	if err != nil {
		return nil, err
	}
	w := new(weights)
	above := make([]int, len(g.nodes)) // the weights of the nodes one level up
	for d := range w {
		level := make([]int, len(g.nodes))
		for _, n := range order {
			level[n] = g.nodes[n].weight(d, level, above)
		}
		w[d], above = level[0], level
	}
	if w[0] > maxWork {
		return nil, fmt.Errorf("a single value takes more than %d evaluations", maxWork)
	}
	return w, nil
}

// weight returns how many evaluations at depth d below a value n leads to when it is applied to it.
func (n *node) weight(d int, level, above []int) int {
	total := sum(n.same, level)
	if d == 0 {
		return min(maxWork+1, total+n.own)
	}
	return min(maxWork+1, total+max(sum(n.object, above), sum(n.array, above)))
}

// sum adds up the heaviest candidate of each edge.
func sum(edges [][]int, weights []int) int {
	total := 0
	for _, edge := range edges {
		heaviest := 0
		for _, n := range edge {
			heaviest = max(heaviest, weights[n])
		}
		total = min(maxWork+1, total+heaviest)
	}
	return total
}

// id returns the number of a subschema.
func (g *graph) id(s *jsonschema.Schema) int {
	n, known := g.index[s]
	if !known {
		n = len(g.queue)
		g.index[s] = n
		g.queue = append(g.queue, s)
		g.nodes = append(g.nodes, node{own: 1})
	}
	return n
}

// edge returns the edge to whichever of the schemas that are there.
func (g *graph) edge(to ...*jsonschema.Schema) []int {
	var ids []int
	for _, s := range to {
		if s != nil {
			ids = append(ids, g.id(s))
		}
	}
	return ids
}

// add fills node n, which is s.
func (g *graph) add(n int, s *jsonschema.Schema) {
	var v node
	v.own = 1
	if s.Enum != nil {
		v.own += len(s.Enum.Values)
	}
	g.same(n, &v, s)
	g.object(&v, s)
	g.array(&v, s)
	g.nodes[n] = v
	if s.DynamicAnchor != "" {
		g.anchors[s.DynamicAnchor] = append(g.anchors[s.DynamicAnchor], n)
	}
	if s.RecursiveAnchor {
		g.anchors[recursive] = append(g.anchors[recursive], n)
	}
}

func (g *graph) same(n int, v *node, s *jsonschema.Schema) {
	for _, list := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf, {s.Ref, s.Not, s.If}} {
		for _, to := range list {
			v.same = append(v.same, g.edge(to))
		}
	}
	v.same = append(v.same, g.edge(s.Then, s.Else))
	for _, to := range s.DependentSchemas {
		v.same = append(v.same, g.edge(to))
	}
	for _, dependency := range s.Dependencies {
		if to, ok := dependency.(*jsonschema.Schema); ok {
			v.same = append(v.same, g.edge(to))
		}
	}
	if s.DynamicRef != nil {
		if s.DynamicRef.Anchor != "" {
			g.dynamic = append(g.dynamic, dynamicEdge{n, len(v.same), s.DynamicRef.Anchor})
		}
		v.same = append(v.same, g.edge(s.DynamicRef.Ref))
	}
	if s.RecursiveRef != nil {
		g.dynamic = append(g.dynamic, dynamicEdge{n, len(v.same), recursive})
		v.same = append(v.same, g.edge(s.RecursiveRef))
	}
}

func (g *graph) object(v *node, s *jsonschema.Schema) {
	var one []*jsonschema.Schema // a property is known by name, or additional
	for _, to := range s.Properties {
		one = append(one, to)
	}
	if to, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		one = append(one, to)
	}
	v.object = append(v.object, g.edge(one...))
	v.own += len(s.PatternProperties) // each looks at each name
	for _, to := range s.PatternProperties {
		v.object = append(v.object, g.edge(to))
	}
	v.object = append(v.object, g.edge(s.PropertyNames), g.edge(s.UnevaluatedProperties))
}

func (g *graph) array(v *node, s *jsonschema.Schema) {
	one := append([]*jsonschema.Schema{s.Items2020}, s.PrefixItems...)
	switch items := s.Items.(type) { // before 2020-12
	case *jsonschema.Schema:
		one = append(one, items)
	case []*jsonschema.Schema:
		one = append(one, items...)
	}
	if to, ok := s.AdditionalItems.(*jsonschema.Schema); ok {
		one = append(one, to)
	}
	v.array = append(v.array, g.edge(one...), g.edge(s.Contains), g.edge(s.UnevaluatedItems))
}

// order returns the nodes so that each comes after those it applies to the same value; errSelf says
// that there is no such order.
func (g *graph) order() ([]int, error) {
	const (
		open = iota + 1
		done
	)
	state := make([]uint8, len(g.nodes))
	order := make([]int, 0, len(g.nodes))
	var visit func(n int) bool
	visit = func(n int) bool {
		if state[n] != 0 {
			return state[n] == done
		}
		state[n] = open
		for _, edge := range g.nodes[n].same {
			for _, to := range edge {
				if !visit(to) {
					return false
				}
			}
		}
		state[n] = done
		order = append(order, n)
		return true
	}
	for n := range g.nodes {
		if !visit(n) {
			return nil, errSelf
		}
	}
	return order, nil
}
