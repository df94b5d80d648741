package policy

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/cedar-policy/cedar-go"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
)

// ContextPart is a set of parts of a Context.
type ContextPart uint8

// The parts of a Context.
const (
	PartNow ContextPart = 1 << iota
	PartTransport
	PartIP
	PartCause
	PartEvent
	PartOp

	allParts = PartNow | PartTransport | PartIP | PartCause | PartEvent | PartOp
)

// Key returns a digest of those parts of the context. Two requests that differ in nothing else, with equal
// keys of the parts that Set.Reads names, have the same decision: whoever remembers decisions uses it.
// With PartNow there is no key, for a decision that depends on the time MUST NOT be remembered.
func (c *Context) Key(parts ContextPart) (key [sha256.Size]byte, ok bool) {
	if parts&PartNow != 0 {
		return key, false
	}
	// The one part that nearly all decisions read needs no digest.
	if parts&PartTransport != 0 {
		key[0] = 1 + byte(c.Transport)
	}
	if parts&^PartTransport == 0 {
		return key, true
	}
	b := make([]byte, 0, 256)
	add := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = append(b, key[0])
	if parts&PartIP != 0 {
		ip := c.IP.Unmap().As16()
		b = append(b, byte(c.IP.BitLen()))
		b = append(b, ip[:]...)
	}
	if cause := c.Cause; parts&PartCause != 0 && cause != nil {
		if cause.Principal != nil {
			// What else is true of the principal may change: only its credential says so, and that is not here.
			return key, false
		}
		b = binary.AppendUvarint(b, 1+uint64(len(cause.Functions)))
		for _, f := range cause.Functions {
			add(string(f))
		}
	} else {
		b = append(b, 0)
	}
	if e := c.Event; parts&PartEvent != 0 && e != nil {
		b = append(b, 1)
		add(e.Type)
		add(e.Source)
		add(e.Subject)
		b = binary.AppendVarint(b, e.Size)
	}
	if parts&PartOp != 0 {
		add(c.Op)
	}
	return sha256.Sum256(b), true
}

// readsOf returns the parts of the context that a policy's conditions read.
func readsOf(p *xast.Policy) ContextPart {
	var parts ContextPart
	for _, c := range p.Conditions {
		parts |= partsOf(c.Body)
	}
	return parts
}

func partsOf(n xast.IsNode) ContextPart {
	var parts ContextPart
	xast.Inspect(xast.NewNode(n), func(n xast.IsNode) bool {
		switch n := n.(type) {
		case xast.NodeTypeAccess:
			if isContext(n.Arg) {
				parts |= partOf(string(n.Value))
				return false
			}
		case xast.NodeTypeHas:
			if isContext(n.Arg) {
				parts |= partOf(string(n.Value))
				return false
			}
		case xast.NodeTypeVariable:
			if isContext(n) {
				parts = allParts
			}
		}
		return true
	})
	return parts
}

func isContext(n xast.IsNode) bool {
	v, ok := n.(xast.NodeTypeVariable)
	return ok && v.Name == "context"
}

func partOf(attribute string) ContextPart {
	switch attribute {
	case "now":
		return PartNow
	case "tls", "mtls":
		return PartTransport
	case "ip":
		return PartIP
	case "cause":
		return PartCause
	case "event":
		return PartEvent
	case "op":
		return PartOp
	}
	return allParts
}

// loosen returns a policy as it is when the context is left out of account, of which its conditions read some parts: a permit whose
// conditions on the context hold, and no forbid that reads it. It permits whatever the policy permits in some context.
func loosen(permit bool, reads ContextPart, p *xast.Policy) *xast.Policy {
	switch {
	case reads == 0:
		return p
	case !permit:
		return nil
	}
	loose := *p
	loose.Conditions = make([]xast.ConditionType, len(p.Conditions))
	for i, cond := range p.Conditions {
		loose.Conditions[i] = xast.ConditionType{Condition: cond.Condition, Body: assume(cond.Body, bool(cond.Condition))}
	}
	return &loose
}

// assume replaces what reads the context by the value that lets the condition hold. Only what must be so
// for the whole to be so is looked into: the parts of an "and", or those of an "or" that must not hold.
func assume(n xast.IsNode, want bool) xast.IsNode {
	switch n := n.(type) {
	case xast.NodeTypeAnd:
		if want {
			return xast.NodeTypeAnd{BinaryNode: xast.BinaryNode{Left: assume(n.Left, want), Right: assume(n.Right, want)}}
		}
	case xast.NodeTypeOr:
		if !want {
			return xast.NodeTypeOr{BinaryNode: xast.BinaryNode{Left: assume(n.Left, want), Right: assume(n.Right, want)}}
		}
	case xast.NodeTypeNot:
		return xast.NodeTypeNot{UnaryNode: xast.UnaryNode{Arg: assume(n.Arg, !want)}}
	}
	if partsOf(n) == 0 {
		return n
	}
	return xast.NodeValue{Value: cedar.Boolean(want)}
}
