// Lints of the console. Type-checked rules everywhere; accessibility and hooks rules for components.
import js from '@eslint/js'
import a11y from 'eslint-plugin-jsx-a11y'
import hooks from 'eslint-plugin-react-hooks'
import ts from 'typescript-eslint'

export default ts.config(
  { ignores: ['dist', 'node_modules', 'src/api/schema.ts', 'eslint.config.js'] },
  js.configs.recommended,
  ...ts.configs.strictTypeChecked,
  ...ts.configs.stylisticTypeChecked,
  { languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } } },
  {
    files: ['**/*.tsx'],
    ...a11y.flatConfigs.strict,
  },
  {
    files: ['**/*.{ts,tsx}'],
    plugins: { 'react-hooks': hooks },
    rules: {
      ...hooks.configs.recommended.rules,
      '@typescript-eslint/consistent-type-definitions': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { allowDefaultCaseForExhaustiveSwitch: true }],
      'no-restricted-properties': [
        'error',
        ...['toFixed', 'toLocaleString', 'toLocaleTimeString', 'toLocaleDateString', 'toPrecision'].map((property) => ({
          property,
          message: 'Numbers, times and units are formatted in src/units.ts.',
        })),
      ],
      'no-restricted-globals': [
        'error',
        { name: 'fetch', message: 'Requests are made in src/api/client.ts.' },
        { name: 'sessionStorage', message: 'The session is a cookie that scripts cannot read.' },
      ],
    },
  },
  { files: ['src/units.ts'], rules: { 'no-restricted-properties': 'off' } },
  { files: ['src/api/client.ts', 'src/**/*.test.{ts,tsx}', 'src/test/**'], rules: { 'no-restricted-globals': 'off' } },
)
