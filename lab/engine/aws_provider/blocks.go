package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// presentBlocks replaces an omitted block in a configuration with an empty list or set, like Terraform. The bridge
// leaves it null, and HashiCorp's provider then crashes when it changes an instance with an attached volume ("can't use
// ElementIterator on null value": it reads the tags of block devices).
type presentBlocks struct {
	tfprotov6.ProviderServer
	schemas map[string]*tfprotov6.Schema
}

func withPresentBlocks(ctx context.Context, server tfprotov6.ProviderServer) (*presentBlocks, error) {
	answer, err := server.GetProviderSchema(ctx, &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		return nil, fmt.Errorf("the schema of the provider: %w", err)
	}
	return &presentBlocks{ProviderServer: server, schemas: answer.ResourceSchemas}, nil
}

func (server *presentBlocks) ApplyResourceChange(
	ctx context.Context, request *tfprotov6.ApplyResourceChangeRequest,
) (*tfprotov6.ApplyResourceChangeResponse, error) {
	if schema := server.schemas[request.TypeName]; schema != nil && request.Config != nil {
		config, err := presented(request.Config, schema)
		if err != nil {
			return nil, fmt.Errorf("the configuration of a %s: %w", request.TypeName, err)
		}
		changed := *request
		changed.Config = config
		request = &changed
	}
	return server.ProviderServer.ApplyResourceChange(ctx, request)
}

func presented(config *tfprotov6.DynamicValue, schema *tfprotov6.Schema) (*tfprotov6.DynamicValue, error) {
	value, err := config.Unmarshal(schema.ValueType())
	if err != nil || value.IsNull() { // null is the configuration of a resource that is deleted
		return config, err
	}
	attributes := map[string]tftypes.Value{}
	if err := value.As(&attributes); err != nil {
		return nil, err
	}
	for _, block := range schema.Block.BlockTypes {
		isCollection := block.Nesting == tfprotov6.SchemaNestedBlockNestingModeList ||
			block.Nesting == tfprotov6.SchemaNestedBlockNestingModeSet
		if current := attributes[block.TypeName]; isCollection && current.IsNull() {
			attributes[block.TypeName] = tftypes.NewValue(current.Type(), []tftypes.Value{})
		}
	}
	whole, err := tfprotov6.NewDynamicValue(schema.ValueType(), tftypes.NewValue(value.Type(), attributes))
	return &whole, err
}
