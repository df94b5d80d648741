package policy

import "github.com/cedar-policy/cedar-go"

// Parse is parse.
func Parse(text []byte) (*Set, error) { return parse(text) }

// ParseUnvalidated makes a set of policies that the schema would refuse.
func ParseUnvalidated(text []byte) (*Set, error) {
	list, err := cedar.NewPolicyListFromBytes("test.cedar", text)
	if err != nil {
		return nil, err
	}
	set := cedar.NewPolicySet()
	for _, p := range list {
		set.Add(cedar.PolicyID(p.Annotations()["id"]), p)
	}
	known, err := readSchema()
	if err != nil {
		return nil, err
	}
	asks, err := questions(known)
	if err != nil {
		return nil, err
	}
	return &Set{policies: set, asks: asks}, nil
}
