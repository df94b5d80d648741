package manifest

import "sallyport/internal/ident"

// InvokeGrant calls another function of the namespace and gets its reply.
type InvokeGrant struct {
	Function ident.FunctionName
}

// invokeGrant reads a grant of kind invoke. The function may be of another app of the namespace, so that it is looked for when it is called.
func (t *table) invokeGrant(g *Grant) {
	g.Invoke = &InvokeGrant{}
	s := t.text(KindInvoke)
	if s == "" {
		return
	}
	name, err := ident.ParseFunctionName(s)
	if err != nil {
		t.fault(KindInvoke, "%s", words(err))
	}
	g.Invoke.Function = name
}
