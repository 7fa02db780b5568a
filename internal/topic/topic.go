// Package topic knows MQTT topic names, filters, and the patterns of triggers, in which {name} stands for one level.
package topic
