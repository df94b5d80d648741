package iam_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"path"
	"strings"
	"testing"
	"time"

	"sallyport/internal/policy"
	"sallyport/internal/policy/iam"
	"sallyport/internal/problem"
)

// awsStatement is a statement as AWS would evaluate it, which allowedByAWS does: an evaluator that shares nothing with
// the import.
type awsStatement struct {
	Effect      string
	Action      []string                       `json:",omitempty"`
	NotAction   []string                       `json:",omitempty"`
	Resource    []string                       `json:",omitempty"`
	NotResource []string                       `json:",omitempty"`
	Condition   map[string]map[string][]string `json:",omitempty"`
}

func (s *awsStatement) applies(action, resource string, keys map[string]string) bool {
	if s.NotAction == nil && !anyGlob(s.Action, action) || s.NotAction != nil && anyGlob(s.NotAction, action) {
		return false
	}
	if s.NotResource == nil && !anyGlob(s.Resource, resource) || s.NotResource != nil && anyGlob(s.NotResource, resource) {
		return false
	}
	for operator, byKey := range s.Condition {
		for key, values := range byKey {
			if !awsCondition(operator, values, keys, key) {
				return false
			}
		}
	}
	return true
}

// anyGlob matches without case, as IAM does for actions; the test's resources are in lower case.
func anyGlob(patterns []string, s string) bool {
	for _, p := range patterns {
		// A slash is no separator in IAM.
		ok, err := path.Match(strings.ReplaceAll(strings.ToLower(p), "/", "\x01"), strings.ReplaceAll(strings.ToLower(s), "/", "\x01"))
		if err == nil && ok {
			return true
		}
	}
	return false
}

func awsCondition(operator string, values []string, keys map[string]string, key string) bool {
	got, present := keys[key]
	if operator == "Null" {
		return present != (values[0] == "true")
	}
	base, ifExists := strings.CutSuffix(operator, "IfExists")
	negated := strings.Contains(base, "Not")
	if !present {
		return ifExists || negated
	}
	matched := false
	for _, v := range values {
		switch strings.Replace(base, "Not", "", 1) {
		case "StringEquals":
			matched = matched || got == v
		case "StringLike":
			matched = matched || anyGlob([]string{v}, got)
		case "Bool":
			matched = matched || got == v
		case "IpAddress":
			prefix, err := netip.ParsePrefix(v)
			matched = matched || err == nil && prefix.Contains(netip.MustParseAddr(got))
		case "DateLessThan":
			matched = matched || got < v // both in one form of one length
		case "StringEqualsIgnoreCase":
			matched = matched || strings.EqualFold(got, v)
		}
	}
	return matched != negated
}

func allowedByAWS(doc []awsStatement, action, resource string, keys map[string]string) bool {
	allowed := false
	for i := range doc {
		if !doc[i].applies(action, resource, keys) {
			continue
		}
		if doc[i].Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

func pick(rnd *rand.Rand, list ...string) string { return list[rnd.IntN(len(list))] }

func some(rnd *rand.Rand, list ...string) []string {
	out := []string{pick(rnd, list...)}
	if rnd.IntN(3) == 0 {
		out = append(out, pick(rnd, list...))
	}
	return out
}

func randomStatement(rnd *rand.Rand) awsStatement {
	s := awsStatement{Effect: pick(rnd, "Allow", "Allow", "Deny")}
	actions := some(rnd, "lambda:InvokeFunction", "lambda:Invoke*", "events:PutEvents", "*", "s3:*", "lambda:InvokeFunctio?", "lambda:GetFunction")
	if s.Action = actions; rnd.IntN(5) == 0 {
		s.Action, s.NotAction = nil, actions
	}
	const f = "arn:aws:lambda:r:a:function:"
	resources := some(rnd, "*", f+"price", f+"p*", f+"*", f+"pric?", f+"*ice", f+"price:3", f+"pay", "arn:aws:lambda:r:a:*", "arn:aws:events:r:a:event-bus/shop",
		"arn:aws:events:r:a:*", "arn:aws:s3:::b", "arn:aws:*")
	if s.Resource = resources; rnd.IntN(5) == 0 {
		s.Resource, s.NotResource = nil, resources
	}
	for range rnd.IntN(3) {
		operator, key, values := pick(rnd, "StringEquals", "StringNotEquals"), "aws:PrincipalTag/team", some(rnd, "web", "app")
		switch rnd.IntN(6) {
		case 0:
			operator, key, values = pick(rnd, "IpAddress", "NotIpAddress"), "aws:SourceIp", some(rnd, "10.0.0.0/8", "192.0.2.0/24")
		case 1:
			operator, key, values = "Bool", pick(rnd, "aws:SecureTransport", "aws:MultiFactorAuthPresent"), some(rnd, "true", "false")
		case 2:
			operator, key, values = pick(rnd, "StringLike", "StringNotLike"), "events:source", some(rnd, "/till/*", "/till/?", "*")
		case 3:
			operator, key, values = pick(rnd, "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase"), pick(rnd, "events:detail-type", "aws:SourceVpc"), some(rnd, "a.b", "a.c")
		case 4:
			operator, key, values = "DateLessThan", "aws:CurrentTime", some(rnd, "2026-03-02T12:00:01Z", "2026-03-02T11:00:00Z")
		}
		if rnd.IntN(4) == 0 {
			operator += "IfExists"
		}
		if rnd.IntN(8) == 0 {
			operator, values = "Null", []string{pick(rnd, "true", "false")}
		}
		s.Condition = map[string]map[string][]string{operator: {key: values}}
	}
	return s
}

// randomQuestion returns a request here and what it is to AWS.
func randomQuestion(rnd *rand.Rand) (q policy.Request, action, resource string, keys map[string]string) {
	keys = map[string]string{"aws:CurrentTime": "2026-03-02T12:00:00Z", "aws:SecureTransport": "true"}
	name := pick(rnd, "price", "pay", "notice", "a.b", "a.d")
	q = request(name)
	action, resource = "lambda:InvokeFunction", "arn:aws:lambda:r:a:function:"+name
	if q.Action == policy.Publish {
		action, resource = "events:PutEvents", "arn:aws:events:r:a:event-bus/shop"
		q.Context.Event.Source = pick(rnd, "/till/1", "/till/12", "/desk")
		keys["events:detail-type"], keys["events:source"] = name, q.Context.Event.Source
	}
	q.Context.IP = netip.Addr{}
	if rnd.IntN(4) > 0 {
		keys["aws:SourceIp"] = pick(rnd, "10.1.1.1", "192.0.2.1", "203.0.113.1")
		q.Context.IP = netip.MustParseAddr(keys["aws:SourceIp"])
	}
	if rnd.IntN(4) > 0 {
		c := &policy.Claims{Methods: []string{"pwd"}, Time: noon.Add(-time.Minute), Others: map[string][]string{}}
		keys["aws:MultiFactorAuthPresent"] = "false"
		if rnd.IntN(2) == 0 {
			c.Methods, keys["aws:MultiFactorAuthPresent"] = []string{"mfa"}, "true"
		}
		if rnd.IntN(2) == 0 {
			keys["aws:PrincipalTag/team"] = pick(rnd, "web", "app", "ops")
			c.Others["team"] = []string{keys["aws:PrincipalTag/team"]}
		}
		q.Principal.Claims = c
	}
	return q, action, resource, keys
}

// TestOnlyNarrower: with random documents and requests, what the imported policies allow, AWS allows.
func TestOnlyNarrower(t *testing.T) {
	t.Parallel()
	base, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	both, only := 0, 0
	for range 600 {
		doc := make([]awsStatement, 1+rnd.IntN(3))
		for i := range doc {
			doc[i] = randomStatement(rnd)
		}
		text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": doc})
		if err != nil {
			t.Fatal(err)
		}
		r, err := iam.Import("doc.json", text, options())
		if err != nil {
			t.Fatal(err, problem.From(err).Faults, string(text))
		}
		s, err := base.WithNamespace("shop", policy.File{Name: "iam.cedar", Text: r.Text, Namespace: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			q, action, resource, keys := randomQuestion(rnd)
			here, aws := s.Decide(q).Allowed, allowedByAWS(doc, action, resource, keys)
			switch {
			case here && !aws:
				t.Fatalf("allowed here and not by AWS: %s %s %v\n%s\n%s\n%+v", action, resource, keys, text, r.Text, r.Warnings)
			case here:
				both++
			case aws:
				only++
			}
		}
	}
	if both < 1000 {
		t.Errorf("%d allowed by both, %d by AWS only: the random documents test too little", both, only)
	}
	t.Logf("%d allowed by both, %d by AWS only", both, only)
}
