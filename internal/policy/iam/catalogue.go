package iam

import (
	"maps"
	"slices"
	"strings"

	"sallyport/internal/policy"
)

// entry says which IAM actions an action here is made of.
type entry struct {
	action policy.Action
	kind   policy.Kind // of its resource
	// allow are the IAM actions that together amount to it; without any, no Allow is ever enough.
	allow []string
	// deny are those of which each is a part of it.
	deny []string
}

// catalogue is every action of a namespace. IAM's names are in lower case, as IAM compares them.
var catalogue = []entry{
	{policy.Publish, policy.KindEventType, []string{"events:putevents"}, []string{"events:putevents"}},
	{
		policy.Invoke, policy.KindFunction, []string{"lambda:invokefunction"},
		[]string{"lambda:invokefunction", "lambda:invokeasync", "lambda:invokefunctionurl"},
	},
	{policy.Deploy, policy.KindNamespace, deploying, append(slices.Clone(deploying), "lambda:createeventsourcemapping", "lambda:publishversion", "lambda:updatealias")},
	{
		policy.ReadFunctions, policy.KindNamespace,
		[]string{"lambda:getfunction", "lambda:listfunctions", "events:describerule", "events:listrules"},
		[]string{"lambda:getfunction", "lambda:getfunctionconfiguration", "lambda:listfunctions", "events:describerule", "events:listrules"},
	},
	{
		policy.ReadLogs, policy.KindNamespace, []string{"logs:filterlogevents", "logs:getlogevents"},
		[]string{"logs:filterlogevents", "logs:getlogevents", "logs:startquery", "logs:getqueryresults"},
	},
	{
		policy.ManageSubscriptions, policy.KindNamespace, []string{"events:disablerule", "events:enablerule"},
		[]string{"events:disablerule", "events:enablerule"},
	},
	{policy.ReadEvents, policy.KindNamespace, nil, []string{"events:startreplay", "events:describearchive"}},
	{policy.ReadEventData, policy.KindNamespace, nil, []string{"events:startreplay"}},
	{policy.ReadDeadLetters, policy.KindNamespace, nil, []string{"sqs:receivemessage"}},
	{policy.ManageDeadLetters, policy.KindNamespace, nil, []string{"sqs:deletemessage", "sqs:purgequeue", "sqs:startmessagemovetask"}},
	{
		policy.SetSecret, policy.KindSecret, []string{"secretsmanager:createsecret", "secretsmanager:putsecretvalue", "secretsmanager:updatesecretversionstage"},
		[]string{
			"secretsmanager:createsecret", "secretsmanager:putsecretvalue", "secretsmanager:updatesecret", "secretsmanager:updatesecretversionstage",
		},
	},
	{
		policy.ReadSecretMetadata, policy.KindNamespace, []string{"secretsmanager:describesecret", "secretsmanager:listsecrets"},
		[]string{"secretsmanager:describesecret", "secretsmanager:listsecrets", "secretsmanager:listsecretversionids"},
	},
	{policy.UseSecret, policy.KindSecret, nil, []string{"secretsmanager:getsecretvalue"}},
	{policy.RevealSecret, policy.KindSecret, nil, []string{"secretsmanager:getsecretvalue"}},
	{policy.RotateSecret, policy.KindSecret, []string{"secretsmanager:rotatesecret"}, []string{"secretsmanager:rotatesecret"}},
	{policy.DestroySecret, policy.KindSecret, nil, []string{"secretsmanager:deletesecret"}},
	{policy.ReadStatus, policy.KindNamespace, nil, []string{"cloudwatch:getmetricdata"}},
	{policy.ReadPolicies, policy.KindNamespace, nil, []string{"iam:getpolicy", "iam:getrolepolicy", "iam:listpolicies"}},
	{
		policy.ManagePolicies, policy.KindNamespace, nil,
		[]string{
			"iam:createpolicy", "iam:createpolicyversion", "iam:putrolepolicy", "iam:putuserpolicy", "iam:putgrouppolicy", "iam:attachrolepolicy",
			"iam:attachuserpolicy", "iam:attachgrouppolicy",
		},
	},
}

// deploying is what a manifest that is applied may do: functions and the rules that feed them, made, changed and removed.
var deploying = []string{
	"lambda:createfunction", "lambda:updatefunctioncode", "lambda:updatefunctionconfiguration", "lambda:deletefunction",
	"events:putrule", "events:puttargets", "events:removetargets", "events:deleterule",
}

// actions are the actions here that the statement is about.
func (im *importer) actions() ([]*entry, error) {
	s := im.at
	for _, a := range s.actions {
		if strings.Contains(a.text, "${") {
			return nil, im.refuse(a.pointer, "%q has a variable", a.text)
		}
		if !s.notAction && a.text != "*" && !known(a.text) {
			im.warn(a.pointer, "nothing here is a part of %q", a.text)
		}
	}
	if s.notAction && s.allow {
		im.warn("/NotAction", "it allows everything but what it names: every action here that has a counterpart in IAM")
	}
	var list []*entry
	for i := range catalogue {
		e := &catalogue[i]
		if s.allow && len(e.allow) > 0 && !slices.ContainsFunc(e.allow, func(a string) bool { return !s.covers(a) }) {
			list = append(list, e)
		}
		if !s.allow && s.denies(e) {
			list = append(list, e)
		}
	}
	return list, nil
}

// denies reports whether a Deny is about any part of an action here. One for all but some is about it unless all that
// makes the action up is among them; one for all is about what has no counterpart too.
func (s *statement) denies(e *entry) bool {
	parts := e.deny
	if s.notAction && len(e.allow) > 0 {
		parts = e.allow
	}
	return slices.ContainsFunc(parts, s.covers) ||
		!s.notAction && slices.ContainsFunc(s.actions, func(a value) bool { return strings.Trim(a.text, "*:") == "" })
}

// covers reports whether the statement is about an IAM action.
func (s *statement) covers(action string) bool {
	named := slices.ContainsFunc(s.actions, func(a value) bool { return match(strings.ToLower(a.text), action) })
	return named != s.notAction
}

// known reports whether a pattern is about any IAM action of the catalogue.
func known(pattern string) bool {
	return slices.ContainsFunc(catalogue, func(e entry) bool {
		return slices.ContainsFunc(e.deny, func(a string) bool { return match(strings.ToLower(pattern), a) })
	})
}

// match reports whether a text matches a pattern of IAM: * is any characters, ? is one.
func match(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p, t = p+1, t+1
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
