// Package js holds the types that functions in TypeScript and JavaScript are written against.
package js

import _ "embed"

// Types is the text of index.d.ts.
//
//go:embed index.d.ts
var Types string
