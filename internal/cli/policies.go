package cli

import "github.com/spf13/cobra"

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "Check, test and import policies", a.policySchema(), a.policyValidate(), a.policyTest(), a.policyImport())
}
