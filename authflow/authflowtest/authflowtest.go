// Package authflowtest is a fake identity provider for tests and the demo; no production code imports it.
package authflowtest
