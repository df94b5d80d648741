package manifest

import "sallyport/internal/ident"

// InvokeGrant calls another function of the namespace and gets its reply.
type InvokeGrant struct {
	Function ident.FunctionName
}

// invokeGrant reads a grant of kind invoke, which this version does not have yet.
func (t *table) invokeGrant(*Grant) bool { return false }
