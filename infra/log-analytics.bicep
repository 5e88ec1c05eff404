// The ledger's rows in Log Analytics: a table of their own, the data collection rule that takes them in, and the role that
// lets the gateway send to it. A module for the resource group of the workspace; nothing in it names a cloud.

@description('The Log Analytics workspace, in this resource group.')
param workspaceName string

@description('The principal id of the identity that the function app runs as.')
param principalId string

@description('The data collection rule to make.')
param ruleName string = 'tollgate-usage'

@description('The table to make. Custom tables end in _CL.')
param tableName string = 'TollgateUsage_CL'

@description('For how many days rows can be queried; -1 is as long as the workspace keeps its own.')
param retentionInDays int = -1

@description('The resource id of a data collection endpoint, where private link wants one. Without it the rule has an endpoint of its own.')
param dataCollectionEndpointId string = ''

@description('Tags for what is made.')
param tags object = {}

var streamName = 'Custom-TollgateUsage'

// One list for the table and for the stream. `SubscriptionId` would be the natural name of the third; it is one of those that
// Azure Monitor keeps for itself.
var columns = [
  { name: 'TimeGenerated', type: 'datetime' }
  { name: 'EventTime', type: 'datetime' }
  { name: 'EventId', type: 'string' }
  { name: 'Subscription', type: 'string' }
  { name: 'Product', type: 'string' }
  { name: 'CostCenter', type: 'string' }
  { name: 'EndUser', type: 'string' }
  { name: 'Operation', type: 'string' }
  { name: 'Deployment', type: 'string' }
  { name: 'Model', type: 'string' }
  { name: 'Backend', type: 'string' }
  { name: 'Region', type: 'string' }
  { name: 'Attempts', type: 'int' }
  { name: 'Status', type: 'int' }
  { name: 'Stream', type: 'boolean' }
  { name: 'Outcome', type: 'string' }
  { name: 'UsageSource', type: 'string' }
  { name: 'InputTokens', type: 'long' }
  { name: 'CachedInputTokens', type: 'long' }
  { name: 'CacheWriteTokens', type: 'long' }
  { name: 'AudioInputTokens', type: 'long' }
  { name: 'OutputTokens', type: 'long' }
  { name: 'ReasoningTokens', type: 'long' }
  { name: 'AudioOutputTokens', type: 'long' }
  { name: 'Images', type: 'long' }
  { name: 'DurationMs', type: 'long' }
  { name: 'FirstByteMs', type: 'long' }
  { name: 'IsProvisioned', type: 'boolean' }
  { name: 'Cost', type: 'real' }
  { name: 'CostExact', type: 'string' }
  { name: 'Currency', type: 'string' }
]

// Monitoring Metrics Publisher: the same id in every cloud.
var publisherRole = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '3913510d-42f4-4e42-8a64-420c390055eb')

resource workspace 'Microsoft.OperationalInsights/workspaces@2022-10-01' existing = {
  name: workspaceName
}

resource table 'Microsoft.OperationalInsights/workspaces/tables@2022-10-01' = {
  parent: workspace
  name: tableName
  properties: {
    plan: 'Analytics'
    retentionInDays: retentionInDays
    schema: {
      name: tableName
      // A table spells this one type in its own way.
      columns: map(columns, column => {
        name: column.name
        type: column.type == 'datetime' ? 'dateTime' : column.type
      })
    }
  }
}

resource rule 'Microsoft.Insights/dataCollectionRules@2023-03-11' = {
  name: ruleName
  // A rule must be where its workspace is.
  location: workspace.location
  tags: tags
  kind: 'Direct'
  properties: {
    description: 'Takes in what Tollgate posts to its ledger.'
    dataCollectionEndpointId: empty(dataCollectionEndpointId) ? null : dataCollectionEndpointId
    streamDeclarations: {
      '${streamName}': {
        columns: columns
      }
    }
    destinations: {
      logAnalytics: [
        {
          name: 'workspace'
          workspaceResourceId: workspace.id
        }
      ]
    }
    dataFlows: [
      {
        streams: [streamName]
        destinations: ['workspace']
        transformKql: 'source'
        outputStream: 'Custom-${table.name}'
      }
    ]
  }
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(rule.id, principalId, publisherRole)
  scope: rule
  properties: {
    roleDefinitionId: publisherRole
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

@description('The app settings that make the gateway send.')
output settings object = {
  TOLLGATE_LOGS_ENDPOINT: empty(dataCollectionEndpointId) ? rule.properties.endpoints.logsIngestion : reference(dataCollectionEndpointId, '2023-03-11').logsIngestion.endpoint
  TOLLGATE_LOGS_RULE_ID: rule.properties.immutableId
  TOLLGATE_LOGS_STREAM: streamName
}
