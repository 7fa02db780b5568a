// Package sandbox runs invocations in worker processes, and believes nothing that they say.
package sandbox
